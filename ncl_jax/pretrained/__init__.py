"""Models held in the hand: what a finished run or published weights become outside of training."""
