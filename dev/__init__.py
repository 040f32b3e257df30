"""What only a laptop or CI needs: the local stack, the dev CA, the checks."""
