"""The engines: places where messages live, behind `stiqueue.engine.Engine`."""
