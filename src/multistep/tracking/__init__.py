"""What a run's journal says, told to the trackers of other people, while it goes on and afterwards."""
