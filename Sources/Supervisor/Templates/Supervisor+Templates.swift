import Brokering
import FoundationEssentials
import LinuxSystem

extension Supervisor: TemplateLibrary {
  public func templates() async throws(BrokerError) -> [PoolTemplate] {
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    do {
      let found = try await offPool {
        let clones = try TemplateClones.all(runtimeRoot: runtimeRoot, stateRoot: stateRoot)
        let directories = try TemplateDirectory.all(
          stateRoot: stateRoot, runtimeRoot: runtimeRoot)
        let newest = Dictionary(
          directories.map { ($0.pool, $0.generation) }, uniquingKeysWith: max)
        return directories.map { directory in
          directory.describe(
            clones: clones[directory.name] ?? [],
            isNewest: newest[directory.pool] == directory.generation)
        }
      }
      let others = templateMakings.values.map(\.described) + failedTemplates.values
      return (found + others).sorted { ($0.pool, $0.generation) < ($1.pool, $1.generation) }
    } catch {
      throw BrokerError(.storage, "the templates cannot be listed", cause: error)
    }
  }

  public func makeTemplate(_ plan: TemplatePlan) async throws(BrokerError) {
    try checkNotMaking(plan.pool)
    let generation = try await nextGeneration(of: plan.pool)
    try checkNotMaking(plan.pool)
    let making = TemplateMaking(
      plan, templateDirectory(plan.pool, generation),
      directory(of: DesktopID(pool: plan.pool, number: TemplateMaking.number)),
      begun: .wallClock)
    templateMakings[plan.pool] = making
    failedTemplates[plan.pool] = nil
    Task { await make(making) }
  }

  private func checkNotMaking(_ pool: PoolName) throws(BrokerError) {
    guard templateMakings[pool] == nil else {
      throw BrokerError(
        .conflict,
        "a template of pool '\(pool)' is being made: see 'carrel template show \(pool)'")
    }
    try checkNotImporting(pool)
  }

  private func checkNotImporting(_ pool: PoolName) throws(BrokerError) {
    guard !templateImports.contains(pool) else {
      throw BrokerError(
        .conflict, "a template of pool '\(pool)' is being imported: see 'carrel backup jobs'")
    }
  }

  /// Who makes it sees to it that nobody else did meanwhile.
  func nextGeneration(of pool: PoolName) async throws(BrokerError) -> UInt64 {
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    do {
      let last = try await offPool {
        try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot)
          .last { $0.pool == pool }
      }
      return max(last?.generation ?? 0, failedTemplates[pool]?.generation ?? 0) + 1
    } catch {
      throw BrokerError(.storage, "the templates cannot be listed", cause: error)
    }
  }

  public func deleteTemplate(of pool: PoolName) async throws(BrokerError) {
    try checkNotImporting(pool)
    let isMaking = templateMakings[pool] != nil
    if let making = templateMakings[pool] {
      making.cancel()
      await endForGood(making.desktop.desktop)
    }
    let hadFailed = failedTemplates.removeValue(forKey: pool) != nil
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    do {
      let all = try await offPool {
        let all = try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot)
          .filter { $0.pool == pool }
        for directory in all { try directory.retire() }
        return all
      }
      guard isMaking || hadFailed || !all.isEmpty else {
        throw BrokerError(
          .notFound, "pool '\(pool)' has no template: see 'carrel template list'")
      }
      for directory in all { endServer(of: directory) }
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.storage, "the template of pool '\(pool)' cannot be deleted", cause: error)
    }
    await sweepTemplates()
  }

  // MARK: Making

  private func make(_ making: TemplateMaking) async {
    let desktop = making.desktop.desktop
    let name = making.directory.name
    logger.info("template begun", metadata: ["template": "\(name)"])
    var failure: PoolTemplate?
    do {
      try await start(making.request)
      guard let process = machine(of: desktop)?.process else {
        throw LaunchError(.notRunning, "the desktop that was to be taken ended")
      }
      let record = try await offPool {
        let sign = try making.awaitReadiness(process)
        return try making.take(sign: sign, identifier: UUID().uuidString.lowercased())
      }
      await endForGood(desktop)
      guard !making.isUnwanted else {
        throw BrokerError(.conflict, "it was deleted while it was made")
      }
      try await offPool { try making.finish(record) }
      logger.info("template ready", metadata: ["template": "\(name)", "sign": "\(record.sign)"])
    } catch {
      logger.error("template failed: \(error)", metadata: ["template": "\(name)"])
      if !making.isUnwanted {
        failure = making.described
        failure?.state = .failed(problem: "\(error)")
      }
      await endForGood(desktop)
      try? await offPool { try making.directory.abandon() }
    }
    try? await offPool { try making.desktop.delete() }
    // Somebody may have deleted it at the last moment.
    if making.isUnwanted, Files.exists(making.directory.path) {
      try? await offPool { try making.directory.retire() }
    }
    templateMakings[making.plan.pool] = nil
    failedTemplates[making.plan.pool] = failure
    await sweepTemplates()
  }

  /// Removes generations that no desktop needs and that serve no more.
  func sweepTemplates() async {
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    do {
      let unneeded = try await offPool {
        try TemplateClones.unneeded(runtimeRoot: runtimeRoot, stateRoot: stateRoot)
      }
      for directory in unneeded {
        endServer(of: directory)
        let isDeleted = try await offPool {
          try directory.delete {
            try TemplateClones.all(runtimeRoot: runtimeRoot, stateRoot: stateRoot)[directory.name]
              == nil
          }
        }
        guard isDeleted else { continue }
        logger.info("template deleted", metadata: ["template": "\(directory.name)"])
      }
    } catch {
      logger.error("templates cannot be tidied: \(error)")
    }
  }

  /// Ends what an earlier `carreld` left: its templates' processes serve nobody.
  func surveyTemplates() async {
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    do {
      try await offPool {
        try TemplateDirectory.removeRemains(stateRoot: stateRoot)
        for directory in try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot) {
          TemplateServer.end(directory)
        }
      }
    } catch {
      logger.error("templates cannot be tidied: \(error)")
    }
  }

  /// Ends templates' processes; their clones run on.
  public func endTemplates() {
    for server in templateServers.values { endServer(of: server.directory) }
  }

  private func endServer(of directory: TemplateDirectory) {
    if templateServers[directory.pool]?.directory == directory {
      templateServers[directory.pool] = nil
    }
    TemplateServer.end(directory)
  }

  func templateDirectory(_ pool: PoolName, _ generation: UInt64) -> TemplateDirectory {
    TemplateDirectory(
      pool: pool, generation: generation, stateRoot: settings.stateDirectory,
      runtimeRoot: settings.runtimeDirectory)
  }

  // MARK: Cloning

  /// The template that a desktop of that request is cloned from; `nil` when it boots. One
  /// that serves no more is made anew meanwhile.
  func template(for request: LaunchRequest) async -> DesktopTemplate? {
    guard request.disk == .fresh, !request.resumes, let pool = request.desktop.pool,
      request.desktop != DesktopID(pool: pool, number: TemplateMaking.number)
    else { return nil }
    let (stateRoot, runtimeRoot) = (settings.stateDirectory, settings.runtimeDirectory)
    let machine = TemplateMachine(of: request)
    let found = try? await offPool { () -> (TemplateDirectory, TemplateRecord, String?)? in
      let newest = try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot)
        .last { $0.pool == pool && !$0.isRetired }
      guard let newest, let record = newest.load() else { return nil }
      return (newest, record, record.staleness(for: machine))
    }
    guard let (directory, record, staleness) = found else { return nil }
    guard let reason = staleness else {
      return DesktopTemplate(directory: directory, record: record)
    }
    if templateMakings[pool] == nil, failedTemplates[pool]?.machine != machine {
      logger.notice(
        "template is made anew: \(reason)", metadata: ["template": "\(directory.name)"])
      try? await makeTemplate(
        TemplatePlan(pool: pool, machine: machine, readiness: record.readiness))
    }
    return nil
  }

  /// - Returns: `false` when the desktop has to boot, for which nothing is in the way.
  func clone(_ launching: Launching, _ token: UInt64) async throws -> Bool {
    guard let template = launching.template else { return false }
    let desktop = launching.request.desktop
    do {
      let server = try await server(of: template)
      let disk = try await prepare(launching)
      try checkWanted(desktop)
      let process: ProcessHandle
      do {
        process = try await offPool { try launching.clone(by: server, with: disk) }
      } catch is SystemError {
        // It has died since it was started; another is as good.
        templateServers[template.directory.pool] = nil
        let server = try await self.server(of: template)
        process = try await offPool { try launching.clone(by: server, with: disk) }
      }
      machines[desktop]?.process = process
      setScore(of: process, launching.request)
      machines[desktop]?.isClone = true
      do {
        try watcher.watch(process) { [weak self] exit in
          guard let self else { return }
          Task { await self.processEnded(desktop, token, exit) }
        }
      } catch {
        try? process.send(.kill)
        machines[desktop]?.ended = .stopped
        throw error
      }
      return true
    } catch let error as LaunchError {
      throw error
    } catch {
      guard machines[desktop]?.process == nil else { throw error }
      logger.error(
        "not cloned, so it boots: \(error)",
        metadata: ["desktop": "\(desktop)", "template": "\(template.directory.name)"])
      return false
    }
  }

  /// Tells a clone who it is, and plugs its network cable in: behind it a guest that kept its
  /// template's name and address would be two.
  func introduce(_ desktop: DesktopID) {
    let directory = directory(of: desktop)
    let logger = self.logger
    Task {
      do {
        try await offPool { try CloneIntroduction(directory: directory).run() }
      } catch {
        logger.error(
          "a clone's network cable is not plugged in: \(error)",
          metadata: ["desktop": "\(desktop)"])
      }
      setClock(of: desktop)
    }
  }

  /// The process of a template, started when it is first needed.
  func server(of template: DesktopTemplate) async throws -> TemplateServer {
    let directory = template.directory
    let record = template.record
    if let server = templateServers[directory.pool], server.directory == directory,
      server.process.isRunning
    {
      return server
    }
    // Several desktops may want it at once.
    if let starting = templateStarts[directory.name] { return try await starting.value }
    let program = settings.vmm
    let placeholder = self.directory(
      of: DesktopID(pool: directory.pool, number: TemplateMaking.number))
    let watcher = self.watcher
    let starting = Task { () throws -> TemplateServer in
      try await offPool {
        TemplateServer.end(directory)
        let (server, child) = try TemplateServer.start(
          directory, record, program: program, placeholder: placeholder)
        // So that it is reaped.
        try watcher.watch(child) { _ in }
        return server
      }
    }
    templateStarts[directory.name] = starting
    defer { templateStarts[directory.name] = nil }
    let server = try await starting.value
    if let old = templateServers[directory.pool], old.directory != directory {
      endServer(of: old.directory)
    }
    templateServers[directory.pool] = server
    return server
  }
}
