"""The endpoint: HTTP over `quire.api`, and nothing else.

    middleware   what holds for every request: its id, counting, API keys, bounds on head and body, draining
    endpoints    one object per path: read the body, call the service, write the answer or its events
    app          puts these together into one ASGI application
    run          the process: socket, model, signals, draining, exit code

It owns sockets and answers. What a body means is `quire.api`'s, what runs is `quire.engine`'s.
"""
