-- How many replicas this slot's server has at hand.
-- KEYS: 1 any key of the slot
return replicasAtHand()
