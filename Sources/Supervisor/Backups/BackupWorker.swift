import Brokering
import Glibc
import LinuxSystem

/// Does one piece of work with backups, from its beginning to its end.
struct BackupWorker: Sendable {
  let supervisor: Supervisor
  let desk: any BackupDesk
  let task: BackupTask

  var stateRoot: String { supervisor.stateRoot }
  var workshop: BackupWorkshop { BackupWorkshop(stateRoot: stateRoot) }

  func run() async throws {
    switch task.work {
    case .run(let desktops, let repository):
      try await backUp(desktops, Restic(repository: repository, task: task))
    case .verify(let repository):
      let restic = Restic(repository: repository, task: task)
      try await offPool { try verify(restic) }
    case .restore(let name, let wish, let repository):
      try await restore(name, wish, Restic(repository: repository, task: task))
    case .prune(let scope, let retention, let repository):
      let restic = Restic(repository: repository, task: task)
      try await offPool { try prune(scope, retention, restic) }
    case .export(let desktop, let file): try await export(desktop, file)
    case .exportTemplate(let pool, let generation, let file):
      try await export(pool, generation, file)
    case .importFile(let file, let wish): try await importFile(file, wish)
    }
  }

  // MARK: Taking

  private func backUp(_ desktops: [DesktopID], _ restic: Restic) async throws {
    task.tell("opening the repository")
    let known = try await offPool {
      try restic.prepare()
      return try restic.backups()
    }
    var failures = 0
    for desktop in desktops {
      do {
        try task.checkWanted()
        // What is the same under another desktop, such as the image, is not read again.
        let parent = known.last { $0.desktop == desktop } ?? known.last
        let result = try await taken(desktop) { manifest in
          task.tell("backing up \(desktop)", 0)
          let root = stateRoot
          return try await offPool {
            try restic.backUp(manifest, in: root, parent: parent?.id)
          }
        }
        task.add(
          .init(desktop: desktop, backup: result.id, addedBytes: result.addedBytes))
      } catch {
        try task.checkWanted()
        failures += 1
        task.add(.init(desktop: desktop, problem: "\(error)"))
      }
    }
    guard failures > 0 else { return }
    let first = task.described.results.lazy.compactMap(\.problem).first ?? ""
    throw BrokerError(
      .host,
      desktops.count == 1
        ? first
        : "\(failures) of \(desktops.count) desktops have no new backup; the first: \(first)")
  }

  /// Takes a desktop, has something done with it, and lets it be.
  private func taken<Value: Sendable>(
    _ desktop: DesktopID, isWhole: Bool = false, _ body: (BackupManifest) async throws -> Value
  ) async throws -> Value {
    task.tell("taking \(desktop)")
    let subject = try await desk.subject(desktop)
    let manifest = try await supervisor.takeForBackup(subject, isWhole: isWhole)
    do {
      // It must not have become somebody else's meanwhile.
      guard try await desk.subject(desktop).owner == subject.owner else {
        throw BrokerError(.conflict, "desktop '\(desktop)' was given to somebody else meanwhile")
      }
      let value = try await body(manifest)
      await supervisor.endBackup(of: desktop)
      return value
    } catch {
      await supervisor.endBackup(of: desktop)
      throw error
    }
  }

  // MARK: Verifying

  private func verify(_ restic: Restic) throws {
    task.tell("reading everything back", 0)
    try restic.checkPresence()
    try restic.prepare()
    try restic.readBack()
    let backups = try restic.backups()
    var failures = 0
    for (index, backup) in backups.enumerated() {
      try task.checkWanted()
      task.tell("looking at \(backup.id)", index * 100 / backups.count)
      do {
        let files = try restic.files(of: backup)
        for file in try restic.manifest(of: backup).files where files[file.path] != file.size {
          throw BrokerError(.storage, "'\(file.path)' is not in it as it says")
        }
        task.add(.init(desktop: backup.desktop, backup: backup.id))
      } catch {
        failures += 1
        task.add(.init(desktop: backup.desktop, backup: backup.id, problem: "\(error)"))
      }
    }
    guard failures == 0 else {
      throw BrokerError(
        .storage, "\(failures) of \(backups.count) backups cannot be restored as they are")
    }
  }

  private func prune(
    _ scope: BackupScope, _ retention: Retention, _ restic: Restic
  ) throws {
    task.tell("choosing")
    try restic.checkPresence()
    try restic.prepare()
    let meant = try restic.backups().filter { backup in
      switch scope {
      case .desktop(let id): backup.desktop == id
      case .pool(let name): (backup.desktop.pool ?? backup.pool) == name
      case .all: true
      }
    }
    // What one user had of a desktop is not counted with what another had.
    let groups = Dictionary(grouping: meant) { [$0.desktop.rawValue, $0.owner?.rawValue ?? ""] }
    var gone = 0
    for group in groups.values.sorted(by: { $0[0].id < $1[0].id }) {
      try task.checkWanted()
      gone += try restic.forget(group, retention)
    }
    task.tell("freeing room", 0)
    // Also what backups wrote that never came to their end.
    try restic.prune()
    task.note("\(gone) of \(meant.count) backups were removed")
  }

  // MARK: Restoring

  private func restore(_ name: String, _ wish: RestoreWish, _ restic: Restic) async throws {
    task.tell("looking for it")
    let (backup, manifest) = try await offPool {
      try restic.checkPresence()
      try restic.prepare()
      let found = try restic.backups().filter { $0.id == name || name.hasPrefix($0.id) }
      guard let backup = found.first, found.count == 1 else {
        throw BrokerError(
          .notFound, "there is no backup '\(name)': see 'carrel backup list'")
      }
      return (backup, try restic.manifest(of: backup))
    }
    let present = manifest.presentImage(in: stateRoot)
    // Repositories do not know holes.
    let needed: UInt64 = manifest.files.reduce(0) { $0 + ($1.path == present ? 0 : $1.size) }
    try await place(manifest, wish, needed: needed) { restoring in
      task.tell("fetching \(backup.id)")
      try restic.fetch(backup, to: restoring.root, without: present)
      return present
    }
  }

  /// Gets the files and makes a desktop of them. Until they are all in their place there is
  /// nothing but a directory that is removed; a desktop's directory without a record, as a
  /// crash leaves it before `settle`, is removed as any that belongs to no pool.
  ///
  /// - Parameters:
  ///   - needed: the room that its files take, in bytes.
  ///   - fetch: puts files under `root`; tells which it left where it is.
  private func place(
    _ manifest: BackupManifest, _ wish: RestoreWish, needed: UInt64,
    _ fetch: @escaping @Sendable (BackupRestoring) throws -> String?
  ) async throws {
    let state = stateRoot
    try await offPool { try FreeRoom.check(needed, in: state) }
    let place = try await desk.place(manifest.contents, wish)
    do {
      let obstacle = manifest.memory == nil ? nil : manifest.obstacle(to: place.pool)
      let goesOn = manifest.memory != nil && obstacle == nil
      guard goesOn || !manifest.layers.isEmpty else {
        throw BrokerError(
          .conflict, "there is only memory in it, which cannot go on: \(obstacle ?? "none")")
      }
      let directory = supervisor.directory(of: place.desktop)
      let (program, workshop) = (supervisor.machineProgram, workshop)
      let root = stateRoot
      try await offPool {
        let room = try workshop.makeRoom()
        defer { try? workshop.remove(room) }
        let restoring = BackupRestoring(
          manifest: manifest, root: room.files, target: room.desktop, stateRoot: root,
          program: program)
        let excluded = try fetch(restoring)
        try task.checkWanted()
        task.tell("putting it together")
        try manifest.checkFiles(in: restoring.root, without: excluded)
        let image = try restoring.assemble(goesOn: goesOn)
        try directory.accept(room.desktop)
        // Whoever deletes it looks for disks once more after it has hidden the image.
        if let image, !ImageDirectory.isThere(image) {
          try directory.delete()
          throw BrokerError(.conflict, "image \(image) was deleted meanwhile: try again")
        }
      }
      supervisor.failpoints.hit("backup.restore.placed")
      do {
        try await desk.settle(place, hasMemory: goesOn)
      } catch {
        try await supervisor.discard(place.desktop)
        throw error
      }
      task.add(.init(desktop: place.desktop))
      task.note(
        await whatComes(of: place, goesOn ? "goes on where it was" : "boots", obstacle))
    } catch {
      await desk.leave(place)
      throw error
    }
  }

  /// What a restored desktop does, and when.
  private func whatComes(
    of place: RestorePlace, _ deed: String, _ obstacle: String?
  ) async -> String {
    let (desktop, owner) = (place.desktop, place.owner)
    let way = await desk.way(to: desktop)
    let when =
      switch way {
      case let way? where way.name == owner.rawValue: " when \(owner) logs in"
      case let way?:
        " when \(owner) logs in as '\(way.name)'"
          + (way.plain.map { " ('\(owner)' alone leads to \($0))" } ?? "")
      case nil: ", and no login leads to it now: see 'carrel explain user \(owner)'"
      }
    return "\(desktop) \(deed)\(when)"
      + (obstacle.map { ", and does not go on where it was: \($0)" } ?? "")
  }

  // MARK: Archives

  private func export(_ desktop: DesktopID, _ file: String) async throws {
    let archive = try ExportArchive(path: file, task: task)
    try archive.checkFree()
    let result = try await taken(desktop, isWhole: true) { manifest in
      task.tell("writing \(desktop) to \(file)")
      let root = stateRoot
      return try await offPool { try archive.write(manifest, from: root) }
    }
    task.add(.init(desktop: desktop, addedBytes: result))
  }

  private func importFile(_ file: String, _ wish: RestoreWish) async throws {
    let archive = try ExportArchive(path: file, task: task)
    task.tell("looking at \(file)")
    switch try await offPool({ try archive.check() }) {
    case .desktop(let manifest):
      try await place(manifest, wish, needed: manifest.roomNeeded) { restoring in
        task.tell("reading \(file)")
        try archive.extract(manifest, to: restoring.root)
        return nil
      }
    case .template(let manifest): try await place(manifest, wish, from: archive)
    }
  }
}

extension DesktopDirectory {
  /// Takes over what was put together elsewhere. Durable when it returns.
  func accept(_ made: String) throws {
    let parent = String(state[..<(state.lastIndex(of: "/") ?? state.startIndex)])
    try Files.makeDirectory(parent)
    guard rename(made, state) == 0 else {
      throw SystemError(code: errno, "put \(state) in place")
    }
    try FileDescriptor.open(parent, [.directory]).synchronize()
  }
}

extension ImageDirectory {
  /// Whether that file of the library belongs to an image that is not being deleted.
  static func isThere(_ file: String) -> Bool {
    let place = file[..<(file.lastIndex(of: "/") ?? file.startIndex)]
    return Files.exists(file) && Files.exists("\(place)/image.json")
  }
}
