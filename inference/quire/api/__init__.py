"""OpenAI's API over an engine, without HTTP: bodies in, dicts and event streams out.

service = Service(engine)
request, warnings = parse(ChatCompletionRequest, body)
reply = await service.chat_completions(request, Call("some-id"))
"""
