"""Training: one loop for every GAN, spread over machines by Ray Train and searched by Ray Tune."""
