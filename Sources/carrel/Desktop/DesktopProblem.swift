import ControlAPI

/// What keeps a desktop from starting, when it does not come up by itself.
func startProblem(_ desktop: DesktopDocument) -> String? {
  guard desktop.phase == "failed" || desktop.failures > 0, let problem = desktop.problem else {
    return nil
  }
  return "desktop '\(desktop.id)' does not start: \(problem). See 'carrel desktop show "
    + "\(desktop.id)' and 'carrel doctor'"
}

/// Whether a desktop that was started runs, and what it waits for if not.
func powerText(_ desktop: DesktopDocument) -> String {
  desktop.waiting.map {
    "Desktop \(desktop.id) is \(desktop.power) and waits: \($0). It starts as soon as it may."
  } ?? "Desktop \(desktop.id) is \(desktop.power)."
}

/// A desktop that somebody waited for does not run yet.
func waitProblem(_ desktop: DesktopDocument) -> CommandFailure? {
  desktop.waiting.map {
    CommandFailure("desktop '\(desktop.id)' does not run yet: \($0). See 'carrel status'", .host)
  }
}
