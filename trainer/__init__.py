"""Makes bundles: data sets, the contrastive encoder, its training and its evaluation."""
