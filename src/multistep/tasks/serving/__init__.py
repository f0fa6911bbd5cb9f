"""A finished model behind HTTP: `service` answers in one thread, `app` is what requests and answers look like."""
