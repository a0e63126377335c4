"""Building blocks of models. They know nothing of requests, schedules or files."""
