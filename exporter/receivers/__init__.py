"""Receiver types, one module each: a pure render() to bytes and one attempt to send them."""
