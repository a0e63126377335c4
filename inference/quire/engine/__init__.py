"""What callers talk to: the engine's thread, the way from request to text, and the faces `LLM` and `AsyncLLM`.

It knows neither tensors nor HTTP.
"""
