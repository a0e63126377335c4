"""What runs next, and which blocks of the KV cache it may use. Standard library only.

`Scheduler` owns the progress of requests, `KVManager` their block tables, `PrefixCache` what is known of
the content of blocks, `BlockPool` the blocks. None of them knows text, tensors or threads.
"""
