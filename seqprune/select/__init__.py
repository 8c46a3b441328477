"""Which channels tell classes apart alike: arrays in, indices out."""
