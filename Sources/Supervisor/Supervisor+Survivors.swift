import Brokering
import LinuxSystem
import Logging

extension Supervisor {
  public func survey() async throws(LaunchError) -> [Survivor] {
    let found: [DesktopID]
    let (runtimeRoot, stateRoot) = (settings.runtimeDirectory, settings.stateDirectory)
    do {
      found = try await offPool {
        try DesktopDirectory.all(runtimeRoot: runtimeRoot, stateRoot: stateRoot)
      }
    } catch {
      throw LaunchError(.startFailed, "the runtime directory cannot be read", cause: error)
    }
    let directories = found.filter { machines[$0] == nil }.map(directory(of:))
    let remains = await withTaskGroup(of: (DesktopDirectory, Remains).self) { group in
      for directory in directories {
        group.addTask { (directory, await Remains.of(directory)) }
      }
      return await group.reduce(into: []) { $0.append($1) }
    }
    failpoints.hit("supervisor.survey")
    await surveyTemplates()
    return remains.map { adopt($0.0, $0.1) }.sorted { $0.desktop < $1.desktop }
  }

  private func adopt(_ directory: DesktopDirectory, _ remains: Remains) -> Survivor {
    let desktop = directory.desktop
    if let process = remains.process {
      let token = makeToken()
      machines[desktop] = Machine(
        generation: remains.generation, token: token, process: process, isReady: true)
      do {
        try watcher.watch(process) { [weak self] exit in
          guard let self else { return }
          Task { await self.processEnded(desktop, token, exit) }
        }
        failpoints.hit("supervisor.adopt")
        thawIfDue(directory)
        if Files.exists(directory.unplugged) { introduce(desktop) }
        logger.info(
          "desktop adopted",
          metadata: ["desktop": "\(desktop)", "process": "\(process.identifier)"])
        return Survivor(desktop: desktop, generation: remains.generation, state: .running)
      } catch {
        // What cannot be watched must not run.
        machines[desktop] = nil
        try? process.send(.kill)
      }
    }
    tidyMemory(of: desktop)
    return Survivor(
      desktop: desktop, generation: remains.generation, state: .ended(remains.exit))
  }
}
