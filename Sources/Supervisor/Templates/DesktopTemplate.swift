import Brokering
import LinuxSystem

/// The template that a desktop is cloned from.
struct DesktopTemplate: Sendable {
  let directory: TemplateDirectory
  let record: TemplateRecord

  /// What the desktop's disk is based on.
  var disk: DesktopDisk.Base? {
    directory.disk(record).map { DesktopDisk.Base(path: $0.path, format: $0.format) }
  }
}

extension DesktopDirectory {
  /// Notes which template a desktop that begins anew needs, and gives it UEFI variables.
  func prepare(for template: DesktopTemplate?) throws(SystemError) {
    guard let template else { return try Files.remove(self.template) }
    try Files.replace(self.template, with: Array(template.directory.name.utf8))
    if template.record.hasVariables {
      try Files.replace(
        variables, with: try Files.read(template.directory.variables, limit: 64 << 20))
    }
  }
}
