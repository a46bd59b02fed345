"""What has to be done to a machine, decided before anything is touched: pure values in, a plan out."""
