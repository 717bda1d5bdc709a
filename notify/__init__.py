"""Messages of `health` to where people read them: URLs of over a hundred services, and topics of SNS."""
