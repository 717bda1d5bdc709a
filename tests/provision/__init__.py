"""Provisioning: the real playbooks against moto, an emulator of the AWS API."""
