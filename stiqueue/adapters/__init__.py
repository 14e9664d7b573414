"""StiQueue as the broker of a framework: one module for each, which imports that framework and public clients."""
