"""The worker side: claims a task, starts its run in a fork server, supervises it and settles the record."""
