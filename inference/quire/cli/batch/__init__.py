"""The parts of `quire run-batch`: files of requests and answers, who answers, and the run itself."""
