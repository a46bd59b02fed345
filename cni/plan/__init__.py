"""What has to be done to a host, decided before anything is touched: pure values in, a plan out."""
