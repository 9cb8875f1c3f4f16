"""The pure rules of D2M: what every honest node must agree on."""
