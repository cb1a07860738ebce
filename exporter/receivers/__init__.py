"""Who is told, one module per kind: a pure render() to bytes, and one attempt to send them."""
