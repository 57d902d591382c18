"""What is kept: model versions packaged with everything needed to trust and use them."""
