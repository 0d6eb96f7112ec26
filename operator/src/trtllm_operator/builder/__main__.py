"""`python -m trtllm_operator.builder`: the same as the zipapp."""

import sys

from trtllm_operator.builder.cli import main

sys.exit(main())
