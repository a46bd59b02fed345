"""Plans: the operations on a host, decided before anything is changed; pure values in, a plan out."""
