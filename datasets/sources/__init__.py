"""Videos that are no local files: members of tar shards, and objects behind an address."""
