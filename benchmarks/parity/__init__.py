"""What HyperStream did at which speed, done here: the same work on our memory and MongoDB stores."""
