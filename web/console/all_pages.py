"""Every page of the console, registered by being imported.

Room: web.
"""

from payment_service.web.console import hooks, letters, live, payments, sign_in
from payment_service.web.console.pages import console_pages

__all__ = ["console_pages", "hooks", "letters", "live", "payments", "sign_in"]
