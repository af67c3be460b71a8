"""logindguardctl: shows and steers the service, over the bus where it runs.

What would be long there is read by itself: all records out of the journal, single pages from the kernel.
"""
