"""What a run ships, in the formats of other runtimes; each is written by a library that is imported when it is used."""
