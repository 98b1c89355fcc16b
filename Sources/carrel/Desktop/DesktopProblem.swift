import ControlAPI

/// What keeps a desktop from starting, when it does not come up by itself.
func startProblem(_ desktop: DesktopDocument) -> String? {
  guard desktop.phase == "failed" || desktop.failures > 0, let problem = desktop.problem else {
    return nil
  }
  return "desktop '\(desktop.id)' does not start: \(problem). See 'carrel desktop show "
    + "\(desktop.id)' and 'carrel doctor'"
}
