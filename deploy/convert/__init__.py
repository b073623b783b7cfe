"""From the values of HAMi's Helm chart to an overlay of ours."""
