"""What people bring -> tables of rows with named columns, by split: one way for all tasks."""
