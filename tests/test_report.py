"""What people see of a run: the page, the tables, TensorBoard's events, the live view. No torch is needed."""

from __future__ import annotations


