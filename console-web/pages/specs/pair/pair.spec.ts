// The console of a real pair, in one sequence: each part begins with a whole pair and ends with one.
import "./users";
import "./people";
import "./work";
import "./losses";
import "./limits";
