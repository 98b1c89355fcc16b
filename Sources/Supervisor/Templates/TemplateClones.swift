import Brokering
import LinuxSystem

/// Which desktops were cloned from which generation of a template, and are there yet.
enum TemplateClones {
  /// By the template's name.
  static func all(
    runtimeRoot: String, stateRoot: String
  ) throws(SystemError) -> [String: [DesktopID]] {
    var found: [String: [DesktopID]] = [:]
    for desktop in try DesktopDirectory.all(runtimeRoot: runtimeRoot, stateRoot: stateRoot) {
      let directory = DesktopDirectory(
        desktop: desktop, runtimeRoot: runtimeRoot, stateRoot: stateRoot)
      let bytes: [UInt8]
      do {
        bytes = try Files.read(directory.template, limit: 256)
      } catch  where error.kind == .notFound {
        continue
      }
      found[String(decoding: bytes, as: UTF8.self), default: []].append(desktop)
    }
    return found
  }

  /// Generations without clones that are older than the newest, or that were deleted.
  static func unneeded(
    runtimeRoot: String, stateRoot: String
  ) throws(SystemError) -> [TemplateDirectory] {
    let clones = try all(runtimeRoot: runtimeRoot, stateRoot: stateRoot)
    let directories = try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot)
    return directories.filter { directory in
      let isSucceeded = directories.contains {
        $0.pool == directory.pool && $0.generation > directory.generation
      }
      return clones[directory.name] == nil && (isSucceeded || directory.isRetired)
    }
  }
}

extension TemplateDirectory {
  private var retired: String { path + "/retired" }

  /// Whether no desktop is cloned from it any more.
  var isRetired: Bool { Files.exists(retired) }

  func retire() throws(SystemError) { try Files.replace(retired, with: []) }

  func describe(clones: [DesktopID], isNewest: Bool) -> PoolTemplate {
    guard let record = load() else {
      return PoolTemplate(
        pool: pool, generation: generation,
        state: .failed(problem: "\(self.record) is not what this Carrel wrote: delete it"),
        machine: nil, readiness: nil, created: Timestamp(milliseconds: 0))
    }
    var state = PoolTemplate.State.ready
    if isRetired {
      state = .stale("it was deleted, and stays until its clones are gone")
    } else if !isNewest {
      state = .stale("there is a newer one")
    } else if let reason = record.staleness(for: record.machine) {
      state = .stale(reason)
    }
    var template = PoolTemplate(
      pool: pool, generation: generation, state: state, machine: record.machine,
      readiness: record.readiness, created: record.created)
    template.sign = record.sign
    template.clones = clones
    template.memoryBytes = Self.stored(memory(record))
    template.diskBytes = disk(record).map { Self.stored($0.path) } ?? 0
    return template
  }

  private static func stored(_ path: String) -> UInt64 {
    (try? FileDescriptor.open(path))?.storedBytes ?? 0
  }
}
