"""The installed command, from the shell to the bundled model and back."""

import subprocess
import sys


def test_generate_with_the_bundled_model() -> None:
    command = [sys.executable, "-m", "quire", "generate", "--max-tokens", "4", "--ignore-eos"]
    sampling = ["--temperature", "0", "--max-model-len", "64", "--kv-cache-memory-bytes", "1m"]
    done = subprocess.run(
        [*command, *sampling, "The capital of France is", "-"],
        input="Once upon a time\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "==> The capital of France is <=="
    assert "==> Once upon a time <==" in lines
    assert done.stdout.split("<==")[1].split("==>")[0].strip()  # said something


def test_a_missing_model_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quire", "generate", "--model", "./no/such/folder", "hi"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("quire: error: ") and done.stderr.count("\n") == 1
    assert "no/such/folder" in done.stderr
