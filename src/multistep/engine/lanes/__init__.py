"""Trials side by side: several hands, each with a learner of its own, and one mind that has the journal."""
