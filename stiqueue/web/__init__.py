"""The console: see what is in the queues and act on it, in a browser. Needs the extra ``web``.

A client of a server like any other: it knows the five RPCs and `AdminService`, and nothing of an engine. The way of a
request: `safety` (may it come in), `app` (which page), `access` (as whom), `watch` or `pages` (what to show, from
`link`, the connection to the server), and a template.
"""
