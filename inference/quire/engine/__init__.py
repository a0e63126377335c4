"""What callers talk to: the engine thread, the way from request to text, `LLM` and `AsyncLLM`.

It knows neither tensors nor HTTP.
"""
