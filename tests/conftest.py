"""What every test stands on: one compute thread, no network, no debug settings of the caller's shell."""

import os

# Before torch is imported. The models of the tests are too small for threads to pay.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("QUIRE_DEBUG", None)
