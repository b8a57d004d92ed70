-- Compares the token of a claim with the record's.

-- Returns `running`: it is the task's claim; `forgotten`: this Redis has lost that claim, which its worker restores
-- (claim.lua); otherwise why it is refused: `begun again`, or the task's state.
local function standing_of(token, state, current)
  local is_open = state == 'running' or state == 'queued'
  token, current = tonumber(token), tonumber(current or 0)
  if token > current then return is_open and 'forgotten' or state end
  if token < current or state == 'queued' then return is_open and 'begun again' or state end
  return state
end
