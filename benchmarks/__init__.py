"""What Flansible costs, measured: one command of the Makefile for each question. Nothing here runs in the tests."""
