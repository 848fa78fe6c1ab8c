"""`python -m payment_service.cli.provider_sim`: without the service's own start-up, for rigs.

Room: cli/provider_sim.
"""

from payment_service.cli.provider_sim.command import provider_sim

provider_sim(prog_name="provider-sim")
