"""Payments for online shops, in front of Stripe and PayPal."""
