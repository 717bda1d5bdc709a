"""Tests of the Ansible code that need no engine, no server and no network."""
