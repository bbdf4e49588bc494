"""Settings of all tests: hypothesis prints how to reproduce a failure, and stores no examples."""

from hypothesis import settings

settings.register_profile("parley", print_blob=True, database=None)
settings.load_profile("parley")
